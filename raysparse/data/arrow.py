"""The compute functions of pyarrow, for code that is type-checked."""

from typing import Any

import pyarrow.compute

compute: Any = pyarrow.compute
"""pyarrow makes these functions when it is imported, so that no type checker knows them."""
