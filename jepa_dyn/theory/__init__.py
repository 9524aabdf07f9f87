"""Closed forms that mirror the flows.

Submodules: `modes`, `expansions`, `normal_form`, `time_integral`, `branches`; `barlow_twins`, `barlow_twins_alignment`,
`barlow_twins_off_diagonal`, `barlow_twins_optima`, `barlow_twins_variants`; `direct_pred`; `info_nce`, `linear_collapse`.
"""

from jepa_dyn.theory.modes import (
    critical_time as critical_time,
)
from jepa_dyn.theory.modes import (
    fixed_point as fixed_point,
)
from jepa_dyn.theory.modes import (
    flow_time as flow_time,
)
from jepa_dyn.theory.modes import (
    mode_time as mode_time,
)
from jepa_dyn.theory.modes import (
    state as state,
)
from jepa_dyn.theory.modes import (
    state_around_critical_time as state_around_critical_time,
)
from jepa_dyn.theory.modes import (
    time_to_reach as time_to_reach,
)
