from .loader import (
    EVERYWHERE as EVERYWHERE,
)
from .loader import (
    ROOT as ROOT,
)
from .loader import (
    Group as Group,
)
from .loader import (
    as_dict as as_dict,
)
from .loader import (
    from_dict as from_dict,
)
from .loader import (
    groups as groups,
)
from .loader import (
    known_keys as known_keys,
)
from .loader import (
    load as load,
)
from .loader import (
    load_option as load_option,
)
from .loader import (
    options as options,
)
from .loader import (
    read_plain as read_plain,
)
from .loader import (
    save as save,
)
from .schema import ConfigError as ConfigError
