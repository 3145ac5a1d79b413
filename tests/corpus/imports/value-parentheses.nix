{ ... }:
{
  imports = ([
    ./a.nix
  ]);
}
