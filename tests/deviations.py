"""What the parity tests ask of a comparison with the originals' golden numbers."""


def assert_within(deviations, quantity):
    """The quantity was compared, and every deviation of it is within its tolerance."""
    compared = [deviation for deviation in deviations if deviation.quantity == quantity]
    beyond = [str(deviation) for deviation in compared if not deviation.within]
    assert compared
    assert not beyond, "\n".join(beyond)


def beyond(deviations):
    """The quantities with a deviation beyond their tolerance."""
    return {deviation.quantity for deviation in deviations if not deviation.within}
