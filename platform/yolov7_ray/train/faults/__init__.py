"""Lost workers and controllers, workers that hang, nodes that come and go."""
