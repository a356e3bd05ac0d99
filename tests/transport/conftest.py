from way_fixtures import leaves_nothing, way

__all__ = ["leaves_nothing", "way"]
