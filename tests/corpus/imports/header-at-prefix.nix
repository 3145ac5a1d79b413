args@{ config, pkgs, ... }:
{
  imports = [
    ./a.nix
  ];
}
