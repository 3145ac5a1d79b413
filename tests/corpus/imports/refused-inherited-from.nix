{ ... }:
{
  inherit (import ./x.nix) a imports;
}
