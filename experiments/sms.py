"""SMS: short messages by characters, from the file of the SMS Spam Collection (UCI), `label TAB text` in each line.

    python -m kaem_jax.main --config experiments/sms.py --config.data.path=SMSSpamCollection

Hashed n-grams say what usually follows the last five characters; a small decoder of causal self-attention, which looks
back at a limited number of characters and reads the latents, corrects them. An encoder gives the posterior. What this
needs in nats, beside n-grams with Kneser-Ney smoothing: docs/decisions/fields-and-texts.md.
"""

from kaem_jax.experiments._shared import values
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its variant `tiny`."""
    config = values("sms", variant, num_steps=1600)
    config.data.update({"name": "sms_spam", "path": "SMSSpamCollection", "batch_size": 32})
    config.prior.update({"num_latents": 16, "num_clusters": 10, "spread": 0.1})
    config.decoder = {"kind": "sequence", "width": 64, "num_blocks": 1, "ngram_order": 6}
    config.likelihood.kind = "categorical"
    config.decoder.ngram_penalty = 6e-5  # takes about a third of a count from each n-gram
    # N-grams learn fast; latents that cost too much then are never used.
    config.posterior.update({"kind": "variational", "kl_warmup_steps": config.train.num_steps // 2})
    config.posterior.encoder = {"kind": "sequence", "width": 32, "num_blocks": 1, "num_heads": 2}
    config.optimizer.decoder.learning_rate = 4e-3
    config.evaluation.update({"proposal": "encoder", "num_reconstructions": 64, "posterior_steps": 1})
    config.evaluation.estimator.update({"num_samples": 16, "final_num_samples": 100, "chunk_size": 500})
    return config
