{ lib, ... }:
lib.mkMerge [ { a = 1; } ]
