{ lib, ... }:
let set.modules = [ ./a.nix ]; in
{
  imports = set.modules;
}
