{ config, pkgs, ... }:
{ # comment
  a = 1;
}
