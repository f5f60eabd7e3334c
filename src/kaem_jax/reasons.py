"""Why a library failed, short enough for a refusal in one sentence."""

__all__ = ["first_line"]


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or the name of its type where it says nothing."""
    return (str(error).splitlines() or [""])[0].strip() or type(error).__name__
