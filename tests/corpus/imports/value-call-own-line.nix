{ lib, ... }:
{
  imports =
    lib.optional true ./a.nix
    ++ lib.optionals false [
      ./b.nix
    ];
}
