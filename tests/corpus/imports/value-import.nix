{ lib, ... }:
{
  imports = builtins.filter (p: p != null) [ ./a.nix null ];
  a = 1;
}
