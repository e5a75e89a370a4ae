"""Definitions of all reported numbers in a sentence or two, which reports print beside the numbers."""

from __future__ import annotations

from types import MappingProxyType

DEFINITIONS = MappingProxyType(
    {
        "majority_share": "Share of samples with the most frequent answer. Where all agree, the lower end is the exact "
        "one-sided bound that so many samples support (0.9942 for 512 of 512). For one prompt the interval allows for "
        "having picked the largest share.",
        "agreement": "Unbiased probability that two samples of a prompt give the same answer. Samples without an "
        "answer agree with nothing.",
        "entropy": "Grassberger's estimate of the entropy of the answers, in bits. Samples without an answer count as "
        "all different, so that a prompt that yields only garbage has log2 N bits and not none. The upper end is "
        "what answers that were not seen could still add, if none is rarer than 1 in 1,000; it is unbounded where more "
        "than 15 % of the samples are answers that came once. Of a suite it is the mean of the prompts' estimates, "
        "whose interval allows for what few samples of a prompt miss: its lower end is of the part of the entropy that "
        "so many samples show without bias.",
        "entropy_plug_in": "Entropy of the observed shares, in bits; biased low. Samples without an answer are one "
        "class (unparsed) or two (truncated).",
        "entropy_miller_madow": "Plug-in entropy plus (classes - 1) / (2 N ln 2), in bits.",
        "accuracy": "Share of samples whose answer is the gold answer; samples without an answer are wrong.",
        "accuracy_loose": "The same with checks that forgive an introduction, a farewell and Markdown emphasis.",
        "distance": "Unbiased estimate of the squared distance between the two answer distributions, 0 to 2; may be "
        "slightly below 0 where they are equal. Pairs that share their random numbers are left out. It is at most the "
        "sum of the two agreements: where hardly two samples agree it cannot show a change, and without gold answers "
        "such prompts leave it undecided. For one prompt, the interval is that of the length of the difference, "
        "squared.",
        "flips": "Share of paired samples that are right in one model and wrong in the other.",
        "pass_at_k": "Unbiased probability that at least one of k samples is right.",
        "majority_at_k": "Probability that the most frequent answer of k samples is right, ties shared evenly.",
        "truncated": "Share of samples that ran into the token limit, whatever their text is.",
        "unparsed": "Share of finished samples without an answer.",
        "unclosed": "Share of samples whose reasoning was opened and never closed.",
        "repetition": "Share of 8-grams of tokens that occurred before in the same sample.",
        "length_ratio": "Mean generated tokens of the quantized model over the reference's.",
        "kl_teacher_forced": "KL(reference || quantized) in nats on the reference's samples, whole vocabulary. "
        "Quantiles have Woodruff's interval over prompts, which is unbounded where there are too few positions for the "
        "quantile; the largest KL seen has none.",
        "kl_on_policy": "KL(quantized || reference) in nats, on the quantized model's samples.",
        "exposure_index": "On-policy KL over teacher-forced KL; above 1, the models differ more after the quantized "
        "model's own text.",
        "top_agreement": "Share of positions where both models would choose the same token first.",
        "kl_llama_cpp": "KL in nats over tokens with ln p > -16, second half of each 512-token window, as llama.cpp.",
        "hazard": "Coupled pairs that diverge, per 100 tokens compared.",
        "survival": "Share of coupled pairs that are still equal at a position (Kaplan and Meier), and the position at "
        "which half have diverged (Brookmeyer and Crowley).",
        "hallucination_variance": "Variance over samples of being wrong, split into parts between and within prompts. "
        "Within = 0: every prompt is either always right or always wrong.",
        "information": "Mutual information of prompt and answer in bits, less what permuted labels give. The share "
        "compares it with the information of the gold answers; without them, with what answers as frequent as the "
        "model's own could tell; where whole texts are compared because answers are results of checks, with a "
        "different text for each prompt. These are also less what permuted labels give: otherwise a perfect model with "
        "few samples would seem to know little. "
        "The share is near 0 for a model that gives the same answer to everything, and 1 for one that is always right; "
        "in between, few samples of a prompt make it somewhat too low.",
        "top_share": "Share of the most frequent answer over all prompts; the interval allows for having picked the "
        "largest.",
        "effective_answers": "2 to the entropy of the answers over all prompts. It grows with the number of prompts "
        "and samples; the interval is that of the mean over as many other prompts and samples.",
        "off_prompt_collision": "Probability that samples of two different prompts give the same answer.",
        "copied": "Share of samples whose answer is only a copy of the number or word at one place of the prompt "
        "(first, second or last, whichever is copied most), on prompts where another answer is right; without gold "
        "answers, on all prompts.",
        "paraphrase_keeps": "Share of prompts whose paraphrase has the same most frequent answer.",
        "changed_number_changes": "Share of prompts whose most frequent answer changes with a number in the prompt.",
        "empty_gives": "Share of prompts whose most frequent answer is also that of the empty prompt.",
        "changed_number_correct": "Share of prompts where the answer to the changed number is the right one.",
        "temperature_sweep": "Mean answer entropy at temperatures from 0 to 1.5, on some of the prompts. It should "
        "rise (sign test from the lowest to the highest) and fall between no two neighbours (Holm's procedure).",
        "distinct_n": "Share of different n-grams of words among all. Like the Vendi score it can be "
        "compared at equal numbers of texts only; the intervals are those of the mean over as many texts of other "
        "prompts.",
        "second_opinion": "The same numbers after a second program merged the answers to a prompt that it considers "
        "equal, for both models. If they agree with the numbers above, answers differ in meaning and not only in "
        "spelling. The gate uses the numbers above.",
        "vendi": "Effective number of different texts, from the similarity of their word 1- to 3-grams.",
        "mean_at_k": "Accuracy of a single trajectory, over the K of every answer.",
        "pass_at_k_procedure": "Share of answers with at least one right trajectory: what a perfect judge could reach.",
        "vote_at_k": "Share of answers whose vote was right; of tied answers, the one of the first trajectory.",
        "deliberate_at_k": "Share of answers that were right after the deliberation; where it gave none, the vote's "
        "answer counts.",
        "cost": "Of one answer, all trajectories and passes included; questions one at a time.",
        "procedure_change": "Change by quantization: bundle less reference, paired by prompt, with the same random "
        "numbers.",
        "tied": "Share of answers whose vote ended in a tie for first place.",
        "decided_by": "Number of answers by what decided them.",
        "length": "Generated tokens, reasoning included; means over prompts of each prompt's mean.",
        "kl_path": "KL in nats between scoring (many positions at once) and decoding (one at a time) with the same "
        "bundle: the difference between its two numerical paths.",
        "token_entropy": "Mean entropy of the next token on the reference's replies, for each of the two models.",
        "delta_entropy": "Mean change of the entropy of the next token, bundle less reference, on the reference's "
        "replies.",
        "gate_pass": "Every endpoint has to be shown within its margin, each at alpha (intersection-union test): alpha "
        "is not split.",
        "gate_fail": "One endpoint shown beyond its margin is enough; since any one would do, the tests of failure "
        "share alpha by Holm's procedure: accuracy four parts, the distance of answers two, the others one.",
        "blind_spot": "Harm to fewer than this share of prompts may not show on any prompt of the suite (at alpha).",
    }
)
"""Name of a number in reports: its definition."""
