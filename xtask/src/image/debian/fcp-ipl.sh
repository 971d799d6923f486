#!/bin/sh
# Started from a zFCP LUN: the adapter is set online and the LUN added. Their names come from the firmware, so the
# image needs to know none.
if [ "$1" = prereqs ]; then exit 0; fi
ipl=/sys/firmware/ipl
[ "$(cat $ipl/ipl_type 2>/dev/null)" = fcp ] || exit 0
read -r device <$ipl/device && read -r wwpn <$ipl/wwpn && read -r lun <$ipl/lun || exit 0

modprobe zfcp
adapter=/sys/bus/ccw/drivers/zfcp/$device
[ "$(cat "$adapter/online")" = 1 ] || echo 1 >"$adapter/online"
tries=0
while [ ! -d "$adapter/$wwpn" ] && [ $tries -lt 30 ]; do
    tries=$((tries + 1))
    sleep 1
done
# With NPIV the kernel finds LUNs itself; then this one may be there already.
[ -d "$adapter/$wwpn/$lun" ] || echo "$lun" >"$adapter/$wwpn/unit_add" || true
exit 0
