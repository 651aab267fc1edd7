#!/usr/bin/env bash
# Debian packages for `make test-system`: a browser that opens TensorBoard, and a Slurm. Needs root or sudo.
set -euo pipefail
PATH="$PATH:/usr/sbin:/sbin"
missing=""
for program in chromium chromedriver slurmctld slurmd munged; do
  command -v "$program" >/dev/null || missing="$program"
done
[ -n "$missing" ] || exit 0
as_root=""
[ "$(id -u)" -eq 0 ] || as_root="sudo"
$as_root apt-get update -qq
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends \
  chromium chromium-driver fonts-dejavu-core slurm-wlm munge
