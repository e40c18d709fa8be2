"""The Open Inference Protocol v2 over HTTP and gRPC, so that its clients (Triton's, KServe's) work unchanged."""

from .routes import control_router, health_router, router
from .statistics import Statistics

__all__ = ["Statistics", "control_router", "health_router", "router"]
