#!/bin/sh
echo "no such token" >&2
exit 3
