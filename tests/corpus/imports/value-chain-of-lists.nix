{ lib, ... }:
{
  imports = [ ./a.nix ] ++ [ ./b.nix ] ++ (if true then [ ./c.nix ] else [ ]);
}
