"""Pictures of stays on their map (to come)."""


def draw_stays(*_) -> None:
    pass
