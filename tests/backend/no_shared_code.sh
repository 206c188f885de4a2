#!/bin/sh
# Usage: no_shared_code.sh LIBRARY
#
# The CPU operations are compiled for newer processors and with other floating-point rules than the rest. An inline function
# of a header that got its own copy in them could be picked by the linker for the whole program. So there must be none. (Tables of
# constants are the same whoever compiled them.)
symbols=$(nm -C "$1") || exit 1
shared=$(echo "$symbols" | grep -E ' [Wu] ' | grep -vE ' u backend::k(Uns|S)igned(Magnitudes|Thresholds)$')
[ -z "$shared" ] && exit 0
echo "compiled for newer processors, but visible to all:"
echo "$shared"
exit 1
