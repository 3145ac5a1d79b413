{ config, pkgs, ... }@args:
{
  imports = [
    ./a.nix
  ];
}
