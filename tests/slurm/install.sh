#!/usr/bin/env bash
# Slurm with accounting from Debian's packages, for tests/slurm. Ends with 1 and the reason where it
# cannot be had; does nothing where it is there.
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"

complete() {
  local name
  for name in munged slurmctld slurmd slurmdbd sbatch sacct mariadbd mariadb-install-db; do
    command -v "$name" >/dev/null || return 1
  done
}

complete && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "no Slurm here, and only root on Debian can install it: slurmctld slurmd slurm-client" \
    "slurmdbd munge mariadb-server-core mariadb-client-core" >&2
  exit 1
fi

# The packages' own services would start with the settings of /etc; the tests start their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  trap 'rm -f "$policy"' EXIT
fi
echo "installing Debian's Slurm for its tests"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
wait="-o DPkg::Lock::Timeout=300"
# shellcheck disable=SC2086
if ! { apt-get $wait -q update && apt-get $wait -q -y --no-install-recommends install \
  slurmctld slurmd slurm-client slurmdbd munge mariadb-server-core mariadb-client-core; } >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  exit 1
fi
rm -f "$log"
complete
