{ lib, ... }:
{
  imports = map (name: ./. + "/${name}") [ "a.nix" "b.nix" ];
}
