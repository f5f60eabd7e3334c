"""SMS: short messages by characters, from the file of the SMS Spam Collection (UCI), `label TAB text` in each line.

    python -m kaem_jax.main --config experiments/sms.py --config.data.path=SMSSpamCollection

Hashed n-grams say what usually follows the last five characters; a small decoder of causal self-attention, which looks
back at a limited number of characters and reads the latents, corrects them. An encoder gives the posterior. What this
needs in nats, beside n-grams with Kneser-Ney smoothing: BUILD_NOTES.md, "Tables and fields".
"""

from ml_collections import ConfigDict

from kaem_jax.settings import value_settings


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its variant `tiny`."""
    config = ConfigDict(value_settings("sms", variant, 1600))
    config.data.name = "sms_spam"
    config.data.path = "SMSSpamCollection"
    config.data.batch_size = 32
    config.prior.outer = 16
    config.prior.inner = 10
    config.likelihood.kind = "categorical"
    config.generator.kind = "sequence"
    config.generator.width = 64
    config.generator.num_blocks = 1
    config.generator.ngram_order = 6
    config.regularization.ngrams = 6e-5  # takes about a third of a count from each n-gram
    config.optimizer.generator.learning_rate = 4e-3
    config.posterior.kind = "variational"
    # N-grams learn fast; latents that cost too much then are never used.
    config.posterior.kl_warmup_steps = config.train.num_steps // 2
    config.encoder.kind = "sequence"
    config.encoder.width = 32
    config.encoder.num_blocks = 1
    config.encoder.num_heads = 2
    config.evaluation.reference = "encoder"
    config.evaluation.num_samples = 16
    config.evaluation.final_num_samples = 100
    config.evaluation.chunk_size = 500
    config.evaluation.num_reconstructions = 64
    config.evaluation.posterior_steps = 1
    return config
