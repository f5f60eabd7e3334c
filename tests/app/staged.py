"""An experiment of two stages: an encoder, then kept chains."""

from tests.app.tiny import tiny_dict

NUM_DATA = 64
ENCODER = {"kind": "mlp", "hidden": (8,)}


def staged_dict():
    """An encoder finds the posteriors in 20 updates, and chains follow for 20 more."""
    group = {"warmup_steps": 2}
    return tiny_dict() | {
        "data": {"batch_size": 16, "num_train": NUM_DATA, "num_held_out": 20},
        "prior": tiny_dict()["prior"] | {"base_density": "gaussian"},
        "posterior": {"kind": "variational", "encoder": ENCODER},
        "train": {"num_steps": 20, "log_every": 10},
        "stages": [
            {
                "num_steps": 20,
                "posterior": {"kind": "particles", "encoder": ENCODER, "num_chains": 2},
                "optimizer": {"prior": group, "decoder": group | {"learning_rate": 1e-3}, "average_decay": 0.9},
            }
        ],
        "evaluation": {
            "estimator": {"kind": "importance", "num_samples": 20, "final_num_samples": 20, "chunk_size": 100},
            "proposal": {"kind": "laplace", "encoder": ENCODER, "num_modes": 1, "num_steps": 2},
            "every_steps": 20, "num_data": 10, "num_reconstructions": 4, "posterior_steps": 2, "posterior_chains": 2,
        },
        "checkpoint": {"every_steps": 20, "keep_last": 9},
    }  # fmt: skip


def get_config():
    return staged_dict()
