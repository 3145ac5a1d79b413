{ lib, ... }:
{
  imports =
    [
      ./a.nix
    ]
    ++ lib.optional true ./b.nix;
}
