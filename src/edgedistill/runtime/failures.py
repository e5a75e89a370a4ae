"""What a failed run of ONNX Runtime is to the user: too little memory, or what it says itself."""

from __future__ import annotations

from edgedistill.errors import GenerationError, OutOfMemoryError

_OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "Failed to allocate memory", "Available memory of")
"""What allocators and kernels say: libstdc++ and libc++, Microsoft's library, the arena, an arena with a limit."""


def run_failure(error: Exception) -> GenerationError:
    """The error to raise from an exception of a run; onnxruntime has no type for memory that ran out."""
    if isinstance(error, MemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY):
        return OutOfMemoryError(
            "The memory ran out while tokens were computed.",
            hint="Close other programs, shorten the prompt, lower max_new_tokens or use fewer samples at a time.",
        )
    return GenerationError(f"ONNX Runtime failed: {first_line(error)}.")


def first_line(error: Exception) -> str:
    """First line of an exception's text, without its full stop."""
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
