{ lib, ... }:
let
  extra = [ ./extra.nix ];
in
{
  imports = [
    ./a.nix
  ];
}
