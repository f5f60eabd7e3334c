"""Names of data, by what they are read from."""

__all__ = ["OWN_FILES", "PREPARED", "SHIPPED_TABLES", "TABLES", "TEXTS", "TOYS"]

TEXTS = ("sms_spam", "text")
OWN_FILES = ("field", "folder", "npz", "table", *TEXTS)
PREPARED = ("celeb_a", "cifar10", "fashion_mnist", "mnist", "svhn_cropped")
TOYS = ("checkerboard", "eight_gaussians", "moons", "rings")
SHIPPED_TABLES = ("breast_cancer", "wine", *TOYS)
TABLES = ("table", *SHIPPED_TABLES)
