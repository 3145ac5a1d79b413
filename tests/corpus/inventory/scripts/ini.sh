#!/bin/false
[g]
h1
