{ config
, pkgs ? import <nixpkgs> { }
, # the rest ]
  lib ? { x = [ ]; }
, ...
}:
{
  imports = [
    ./a.nix
  ];
}
