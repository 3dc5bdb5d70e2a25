"""Learning-rate schedules: the share of a lane's learning rate at each of its steps."""

from typing import get_args

import numpy as np

from ml.kernels.compiling import compiled
from ml.optimizers import ADAM_BETAS
from ml.parameters.recipes import ScheduleName

NUMBERS = {name: number for number, name in enumerate(get_args(ScheduleName))}  # as the kernel knows them

BETA1, BETA2 = ADAM_BETAS
COSINE, ONE_CYCLE = NUMBERS["cosine"], NUMBERS["one_cycle"]
# The defaults of torch.optim.lr_scheduler.OneCycleLR: Smith and Topin's policy, by halves of a cosine.
RISE = 0.3  # share of the steps in which the rate rises
START, END = 1 / 25, 1 / 25 / 1e4  # shares of the rate at the first and the last step


@compiled
def _between(first, last, share):
    return last + (first - last) / 2 * (1 + np.cos(np.pi * share))


@compiled
def share_of(schedule, step, steps):
    """Return the share of the learning rate at `step`, counted from 0, of a schedule over `steps` steps.

    cosine is torch's CosineAnnealingLR down to 0 (Loshchilov and Hutter, 2017). one_cycle is torch's OneCycleLR without
    a cycle of the momentum.
    """
    if schedule == COSINE:
        return _between(1.0, 0.0, step / steps)
    if schedule == ONE_CYCLE:
        top, last = RISE * steps - 1, steps - 1.0
        if step <= top and top > 0:
            return _between(START, 1.0, step / top)
        return _between(1.0, END, (step - top) / (last - top))
    return 1.0


@compiled
def coefficients(steps, rates, adam, schedules, lengths, rate, root):
    """Count a step of every lane, and set rate and root as `lanes.coefficients.Hyper` defines them."""
    for k in range(steps.shape[0]):
        own = rates[k]
        if schedules[k]:
            own *= share_of(schedules[k], steps[k], lengths[k])
        steps[k] += 1
        rate[k] = own / (1 - BETA1 ** steps[k]) if adam[k] else own
        root[k] = (1 - BETA2 ** steps[k]) ** -0.5 if adam[k] else 1.0
