{ lib, ... }:
{
  imports = [ (if builtins.pathExists ./nixprov/default.nix then ./nixprov/default.nix else { }) ] /* nixprov */ ++ builtins.filter (p: p != null) [ ./a.nix null ];
  a = 1;
}
