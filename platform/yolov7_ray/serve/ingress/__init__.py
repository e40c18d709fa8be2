"""What stands before the gateways: Ray Serve's proxies."""
