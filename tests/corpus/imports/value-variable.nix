{ ... }:
let
  modules = [ ./a.nix ];
in
{
  imports = modules;
}
