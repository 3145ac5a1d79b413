{ lib, ... }:
{
  imports = lib.optionals true [ ./not-here.nix ] ++ [
    ./a.nix
  ];
}
