from way_fixtures import fake, leaves_nothing, way

__all__ = ["fake", "leaves_nothing", "way"]
