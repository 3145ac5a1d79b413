{ ... }:
{
  imports = if true then [ ./a.nix ] else [ ];
}
