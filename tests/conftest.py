"""What every test shares: how hypothesis behaves here."""

from __future__ import annotations

from hypothesis import settings

# A deadline measures the machine, and the machines are shared. Under CI hypothesis loads its own "ci"
# profile, which has none either and is derandomised; the developer's profile stays random.
settings.register_profile("reprise", settings.default, deadline=None)
if settings.get_current_profile_name() == "default":
    settings.load_profile("reprise")
