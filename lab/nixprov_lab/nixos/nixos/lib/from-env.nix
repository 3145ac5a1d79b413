# The file named by NIXOS_CONFIG. It takes precedence over nixos-config in NIX_PATH, as on NixOS.
let
  named = builtins.getEnv "NIXOS_CONFIG";
in
  if named == ""
  then <nixos-config>
  else /. + named
