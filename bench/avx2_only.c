/* Hides AVX-512, AVX-VNNI and AMX from programs that ask CPUID, so that they run as on a processor with AVX2 alone.

   gcc -O2 -shared -fPIC -o avx2_only.so bench/avx2_only.c && LD_PRELOAD=./avx2_only.so PROGRAM

   Linux on x86-64. With CPUID faulting (`cpuid_fault` in /proc/cpuinfo) the instruction raises SIGSEGV, and the handler
   answers with the bits of the missing instruction sets cleared. Where the processor cannot do that, as AMD's,
   AVX2_ONLY_TRAPS=1 says that the libraries in question have a trap in its place (bench/avx2_only.py); only these are
   deceived. It obeys whoever asks at run time, as ONNX Runtime and OpenVINO do; code that was compiled for the build
   machine, as llama.cpp with GGML_NATIVE, has to be built anew. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_CPUID 0x1012

static int faulting;

static void answer(greg_t *r) {
  unsigned leaf = (unsigned)r[REG_RAX], sub = (unsigned)r[REG_RCX], a, b, c, d;
  if (faulting)
    syscall(SYS_arch_prctl, ARCH_CPUID, 1);
  __cpuid_count(leaf, sub, a, b, c, d);
  if (faulting)
    syscall(SYS_arch_prctl, ARCH_CPUID, 0);
  if (leaf == 7 && sub == 0) {
    b &= ~(1u << 16 | 1u << 17 | 1u << 21 | 1u << 28 | 1u << 30 | 1u << 31); /* AVX512 F DQ IFMA CD BW VL */
    c &= ~(1u << 1 | 1u << 6 | 1u << 11 | 1u << 12 | 1u << 14);              /* VBMI VBMI2 VNNI BITALG VPOPCNTDQ */
    d &= ~(1u << 8 | 1u << 22 | 1u << 23 | 1u << 24 | 1u << 25);             /* VP2INTERSECT AMX FP16 */
  }
  if (leaf == 7 && sub == 1) {
    a &= ~(1u << 4 | 1u << 5 | 1u << 21 | 1u << 23); /* AVX_VNNI AVX512_BF16 AMX_FP16 AVX_IFMA */
    d &= ~(1u << 4 | 1u << 5 | 1u << 10 | 1u << 19); /* AVX_VNNI_INT8 AVX_NE_CONVERT AVX_VNNI_INT16 AVX10 */
  }
  r[REG_RAX] = a, r[REG_RBX] = b, r[REG_RCX] = c, r[REG_RDX] = d;
}

static void on_fault(int number, siginfo_t *info, void *context) {
  greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
  const unsigned char *at = (const unsigned char *)r[REG_RIP];
  (void)info;
  if (at[0] != 0x0f || at[1] != 0xa2) { /* not CPUID: a fault like any other */
    signal(number, SIG_DFL);
    return;
  }
  answer(r);
  r[REG_RIP] += 2;
}

static void on_trap(int number, siginfo_t *info, void *context) { /* goes on behind int3, at the nop beside it */
  (void)number, (void)info;
  answer(((ucontext_t *)context)->uc_mcontext.gregs);
}

__attribute__((constructor)) static void start(void) {
  struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
  struct sigaction trapped = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO | SA_NODEFER};
  if (getenv("AVX2_ONLY_TRAPS")) {
    sigaction(SIGTRAP, &trapped, NULL);
    return;
  }
  sigaction(SIGSEGV, &action, NULL);
  faulting = syscall(SYS_arch_prctl, ARCH_CPUID, 0) == 0;
  if (!faulting) {
    fputs("avx2_only: this machine cannot make CPUID fault; see bench/avx2_only.py\n", stderr);
    exit(2);
  }
}
