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
      (if builtins.pathExists ./nixprov/default.nix then ./nixprov/default.nix else { }) # nixprov: added by "nixprov up", removed by "nixprov down"
    ];
}
