"""Why a library failed, short enough for a refusal in one sentence."""

__all__ = ["first_line", "is_out_of_memory"]


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or the name of its type where it says nothing."""
    return (str(error).splitlines() or [""])[0].strip() or type(error).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this machine or a device has too little memory; XLA says it in words."""
    return isinstance(error, MemoryError) or str(error).startswith("RESOURCE_EXHAUSTED")
