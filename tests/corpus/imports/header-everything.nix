{ config, lib, pkgs, ... }@args:
with lib;
let
  a = 1;
in
assert a == 1;
rec {
  imports =
    [
      ./a.nix
    ];
}
