"""The files of a published folder: weights, config, rejector, the card, and the files that its numbers come from."""

from cosify.models.binding import CONFIG, WEIGHTS

CARD, FACTS = "README.md", "facts.yaml"
PROCESSOR = "preprocessor_config.json"  # of native transformers models
RUN, METRICS, ENVIRONMENT, TRACE = "run.json", "metrics.jsonl", "environment.json", "kappa_trace.png"
EVALUATION, FINETUNED, RELIABILITY = "evaluation.json", "finetune.json", "reliability.png"
VERIFICATION, TRANSFER = "verification.json", "transfer.json"
REJECTOR, REJECTOR_TENSORS = "rejector.json", "rejector-*.safetensors"
EVALUATION_RESULTS, VERIFICATION_RESULTS = ".eval_results/accuracy.yaml", ".eval_results/verification.yaml"
# What is said of these weights and of no others.
OF_THE_WEIGHTS = (
    EVALUATION_RESULTS, FACTS,
    RUN, METRICS, ENVIRONMENT, TRACE, EVALUATION, RELIABILITY, FINETUNED, TRANSFER, VERIFICATION, VERIFICATION_RESULTS,
    REJECTOR, REJECTOR_TENSORS,
)  # fmt: skip
PUBLISHED = (CONFIG, WEIGHTS, PROCESSOR, CARD, *OF_THE_WEIGHTS)
