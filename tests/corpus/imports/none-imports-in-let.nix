{ ... }:
let
  imports = [ ./not-the-module.nix ];
in
{
  a = builtins.length imports;
}
