{ config, pkgs, ... }:
{
  imports = [
    ./a.nix
    ./b.nix
    (if builtins.pathExists ./nixprov/default.nix then ./nixprov/default.nix else { }) /* nixprov */ ];
}
