"""Names of columns in any script, in figures."""

import contextlib
import warnings
from collections.abc import Iterator

_OF_MANY_SCRIPTS = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Source Han Sans", "WenQuanYi Zen Hei", "IPAGothic", "Hiragino Sans",
    "Microsoft YaHei", "Malgun Gothic", "Noto Sans Arabic", "Noto Sans Devanagari", "Arial Unicode MS",
)  # fmt: skip


@contextlib.contextmanager
def all_scripts() -> Iterator[None]:
    """Figures that are drawn inside take missing glyphs from fonts that are installed; else boxes, without warnings."""
    import matplotlib
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    fallbacks = [name for name in _OF_MANY_SCRIPTS if name in installed]
    with (
        matplotlib.rc_context({"font.sans-serif": [*matplotlib.rcParams["font.sans-serif"], *fallbacks]}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield
